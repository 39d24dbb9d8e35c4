"""One module per subcommand of `lightvla`."""
