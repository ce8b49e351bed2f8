"""A team labels every crop that no person has labelled."""
