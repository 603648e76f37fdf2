"""What runs in llama.cpp's own process: scripts run by path, on the standard library and the engine alone."""
