//! What can go wrong with rows.

/// An error of the row store.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// The database's URL is not one that this program can open.
    #[error("database url {url:?}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it, and what would be right.
        why: &'static str,
    },
    /// The database failed.
    #[error("failed to {what}")]
    Database {
        /// What was being done, as a verb.
        what: &'static str,
        /// The cause.
        source: sqlx::Error,
    },
    /// The host's own tables could not be made or brought up to date.
    #[error("failed to migrate the host's tables")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The runtime behind the database could not be started.
    #[error("failed to start the database's runtime")]
    Runtime(#[source] std::io::Error),
    /// A table's declaration is not allowed.
    #[error("table {table:?}: {why}")]
    Spec {
        /// The table's name as declared.
        table: String,
        /// What is wrong.
        why: String,
    },
    /// The name belongs to another plugin, or to nobody that the host knows.
    #[error("table {table} of plugin {plugin} belongs to {owner}")]
    OtherOwner {
        /// The table.
        table: String,
        /// The plugin that declares it.
        plugin: String,
        /// Whose it is.
        owner: String,
    },
    /// The table exists with another shape.
    #[error(
        "table {table} of plugin {plugin} has changed: {difference}; with another state version the plugin is built anew"
    )]
    OtherShape {
        /// The table.
        table: String,
        /// The plugin.
        plugin: String,
        /// What differs, existing first.
        difference: String,
    },
    /// The plugin gave rows that do not fit its table.
    #[error("rows for table {table}: {why}")]
    Rows {
        /// The table, or its index where there is none.
        table: String,
        /// What does not fit.
        why: String,
    },
    /// No table of this name was declared.
    #[error("no table {0:?}")]
    NoTable(String),
}

impl RowError {
    /// Whether the plugin is at fault and not the store.
    pub fn is_callers_fault(&self) -> bool {
        matches!(
            self,
            Self::Spec { .. }
                | Self::OtherOwner { .. }
                | Self::OtherShape { .. }
                | Self::Rows { .. }
        )
    }

    /// Whether rows that were given cannot be stored because of what they are: refused here, or by a constraint of the
    /// database, as two rows with one key are. Everything else that a database says is its own trouble.
    pub fn is_plugins_fault(&self) -> bool {
        match self {
            Self::Database {
                source: sqlx::Error::Database(error),
                ..
            } => !matches!(error.kind(), sqlx::error::ErrorKind::Other),
            other => other.is_callers_fault(),
        }
    }

    pub(super) fn database(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { what, source }
    }
}
