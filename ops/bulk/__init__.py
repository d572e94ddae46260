"""Bulk import of facts from files: what ``ringfence import`` does."""
