"""The command `divid`: one thin file a command, which parses, calls and shows."""
