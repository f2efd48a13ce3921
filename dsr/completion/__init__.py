"""What shells complete after `dsr`: from a table, without the commands themselves."""
