"""What people look at: tables, figures, contact sheets, the page that shows them all."""
