"""The bundled implementations of every kind. They are found by entry points, as all plugins are."""
