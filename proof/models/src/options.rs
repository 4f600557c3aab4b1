//! What can be asked of the models, by the command `crash models` and by the program it runs.

use clap::Args;

/// What can be asked of the command.
#[derive(Args)]
pub struct Options {
    /// Only these; names or their beginnings, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub model: Vec<String>,
    /// Executions of each model, times what a model asks for.
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
    /// Of the first execution; the others follow from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Exactly one execution of each model, of this seed, as a failure names it.
    #[arg(long, conflicts_with_all = ["iterations", "seed"])]
    pub again: Option<u64>,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
    /// Lists the models.
    #[arg(long)]
    pub list: bool,
}
