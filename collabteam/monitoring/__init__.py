"""A camera over time: drift, facts for the fleet's page, the next step."""
