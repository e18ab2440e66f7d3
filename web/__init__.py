"""The pages of the views of a whole collection, and their part of `/api/v1`: a module a view. Owns no view (`views/`)."""
