//! fee-estimator
