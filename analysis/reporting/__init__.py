"""What people read: the answer in sentences, tables, figures and the report."""
