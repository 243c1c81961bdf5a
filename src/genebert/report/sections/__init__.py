"""One module per section of the page: folders become titled blocks."""
