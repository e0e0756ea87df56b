"""What talks to machines: settings, processes, HTTP, files, git. Knows nothing of roles."""
