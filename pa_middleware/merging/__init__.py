"""References merged of policy and reference: pi_alpha = pi_ref + alpha * tau (paper, section 4)."""
