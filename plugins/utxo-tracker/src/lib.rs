//! utxo-tracker
