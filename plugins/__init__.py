"""The bundled implementations of every kind. The core finds them as it finds a stranger's: by entry points."""
