"""What of ours runs inside an engine's environment: the standard library only, nothing else of ours."""
