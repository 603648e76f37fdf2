"""One Python API over many LLM engines: completions, models, files and fine-tunes."""
