"""Pages: the values that hold them, signed cursors, and paginators for statements of the user's."""
