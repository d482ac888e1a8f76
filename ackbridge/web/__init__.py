"""The module for pages; an npm package."""
