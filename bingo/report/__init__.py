"""Tables, figures, contact sheets, and the report page that shows them."""
