"""What runs inside an engine's environment, under its interpreter: the standard library and nothing else of ours.

Modules here, and a plugin's own ``worker`` modules, are imported by path from where they are installed in the
core's environment; nothing else of that environment can be seen.
"""
