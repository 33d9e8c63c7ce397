"""The paths of the service, by subject; `api.app` puts them together."""
