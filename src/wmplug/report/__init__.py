"""Documents for people: certificates and dossiers, each one self-contained file."""
