from __future__ import annotations

import pytest

from cdc.errors import ConfigError
from cdc.source.connection import SourceUrl

SECRET = "s3cr3t"


def test_an_address_gives_all_its_parts() -> None:
    url = SourceUrl.parse("mysql://reader:s3cr3t@db.example:3310/shop")
    assert (url.user, url.password, url.host, url.port) == ("reader", SECRET, "db.example", 3310)
    assert (url.database, url.ssl_mode) == ("shop", "preferred")


def test_the_port_is_3306_where_none_is_given() -> None:
    assert SourceUrl.parse("mysql://reader@db/shop").port == 3306


def test_a_user_without_a_password_has_an_empty_one() -> None:
    assert SourceUrl.parse("mysql://root@127.0.0.1:3306/shop").password == ""


def test_mariadb_is_accepted_as_the_scheme() -> None:
    assert SourceUrl.parse("mariadb://root@db/shop").database == "shop"


def test_percent_signs_encode_any_character() -> None:
    url = SourceUrl.parse("mysql://a%40b:p%3A%2F%3F%23%25%C3%A4@db/sh%2Fop%20%E2%82%AC")
    assert (url.user, url.password, url.database) == ("a@b", "p:/?#%ä", "sh/op €")


def test_a_plus_sign_stays_a_plus_sign() -> None:
    url = SourceUrl.parse("mysql://u:a+b@db/shop?ssl-ca=/etc/a+b.pem")
    assert (url.password, url.ssl_ca) == ("a+b", "/etc/a+b.pem")


def test_a_colon_belongs_to_the_password() -> None:
    assert SourceUrl.parse("mysql://u:a:b@db/shop").password == "a:b"


def test_an_ipv6_host_stands_in_brackets() -> None:
    url = SourceUrl.parse("mysql://root@[::1]:3307/shop")
    assert (url.host, url.port) == ("::1", 3307)
    assert url.masked() == "mysql://root@[::1]:3307/shop?ssl-mode=preferred"


@pytest.mark.parametrize("name", ["ssl-mode", "ssl_mode", "SSL-Mode", "SSL_MODE"])
@pytest.mark.parametrize("value", ["verify-identity", "VERIFY_IDENTITY"])
def test_tls_parameters_are_read_in_any_spelling(name: str, value: str) -> None:
    url = SourceUrl.parse(f"mysql://u@db/shop?{name}={value}&ssl-ca=/ca.pem&ssl-cert=/c.pem&ssl_key=/k.pem")
    assert url.ssl_mode == "verify_identity"
    assert (url.ssl_ca, url.ssl_cert, url.ssl_key) == ("/ca.pem", "/c.pem", "/k.pem")


def test_an_authority_without_a_mode_is_verified() -> None:
    assert SourceUrl.parse("mysql://u@db/shop?ssl-ca=/ca.pem").ssl_mode == "verify_ca"


def test_a_certificate_without_a_mode_is_always_shown() -> None:
    assert SourceUrl.parse("mysql://u@db/shop?ssl-cert=/c.pem&ssl-key=/k.pem").ssl_mode == "required"


def test_the_password_shows_neither_in_repr_nor_when_masked() -> None:
    url = SourceUrl.parse(f"mysql://reader:{SECRET}@db/shop")
    assert SECRET not in repr(url)
    assert url.masked() == "mysql://reader:***@db:3306/shop?ssl-mode=preferred"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "mysql://"),
        ("postgres://u:s3cr3t@db/shop", "mysql://"),
        ("db:3306/shop", "mysql://"),
        ("mysql://db/shop", "no user"),
        ("mysql://:s3cr3t@db/shop", "no user"),
        ("mysql://u:s3cr3t@/shop", "no host"),
        ("mysql://u:s3cr3t@db", "no database"),
        ("mysql://u:s3cr3t@db/", "no database"),
        ("mysql://u:s3cr3t@db/shop/more", "more than one database"),
        ("mysql://u:s3cr3t@db:none/shop", "port"),
        ("mysql://u:s3cr3t@db:0/shop", "port"),
        ("mysql://u:s3cr3t@db:99999/shop", "port"),
        ("mysql://u:s3cr3t@[::1/shop", "malformed host"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=strong", "ssl-mode"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=", "without a value"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=required&SSL_MODE=disabled", "twice"),
        ("mysql://u:s3cr3t@db/shop?charset=utf8", "'charset'"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=required&ssl-ca=/ca.pem", "checks nothing"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=preferred&ssl-cert=/c.pem", "may not encrypt"),
        ("mysql://u:s3cr3t@db/shop?ssl-mode=required&ssl-key=/k.pem", "without ssl-cert"),
        # passwords that were not encoded
        ("mysql://u:s3cr3t#x@db/shop", "#"),
        ("mysql://u:s3cr3t#", "#"),
        ("mysql://u:s3cr3t/x@db/shop", "no user"),
        ("mysql://u:s3cr3t?x@db/shop", "no user"),
        ("mysql://u:x@y?s3cr3t@db/shop", "no database"),
        ("mysql://u:x@y/?s3cr3t@db/shop", "no database"),
        ("mysql://u:x@y/z?s3cr3t@db/shop", "unknown parameter"),
        ("mysql://u:s3cr3t@x@db/shop", "@ too many"),
        ("mysql://u:s3cr3t%@db/shop", "bare %"),
        ("mysql://u:s3cr3t%FF@db/shop", "not UTF-8"),
    ],
)
def test_an_error_names_what_is_wrong_and_never_the_password(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SourceUrl.parse(text)
    assert part in str(caught.value)
    assert caught.value.hint
    assert SECRET not in str(caught.value)
    # the chain that a traceback would print
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
