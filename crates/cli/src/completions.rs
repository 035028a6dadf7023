//! `modelyard completions`: a shell's completion script on standard output.

use clap_complete::Shell;

use crate::Failure;
use crate::command;

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard completions bash > ~/.local/share/bash-completion/completions/modelyard
  modelyard completions zsh > \"${fpath[1]}/_modelyard\"
  modelyard completions fish > ~/.config/fish/completions/modelyard.fish")]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command::command(), "modelyard", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(())
}
