"""The sandbox, driven by the real Encord SDK, by hand-made requests, and without HTTP."""
