//! state_model
