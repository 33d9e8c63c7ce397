"""Values of one column: from the text protocol or the binary log into Arrow."""
