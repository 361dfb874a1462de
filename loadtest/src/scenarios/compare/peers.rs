//! Other servers by name: installed by npm into a folder of their own where that can be done.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::Contender;
use crate::progress::Progress;

/// The versions that are compared with.
const Y_WEBSOCKET: &str = "y-websocket@2.0.4";
const HOCUSPOCUS: &str = "@hocuspocus/server@4.7.0";
const HOCUSPOCUS_PROGRAM: &str = "\
import { Server } from '@hocuspocus/server'
const server = new Server({ port: Number(process.env.PORT), address: '127.0.0.1', quiet: true })
await server.listen()
";

/// The server of that name, or why it cannot be had, in one line; `None` where it is no preset.
pub async fn preset(name: &str, dir: &Path, progress: &Progress) -> Option<Result<Contender, String>> {
    match name {
        "y-websocket" => Some(y_websocket(dir, progress).await),
        "hocuspocus" => Some(hocuspocus(dir, progress).await),
        "y-sweet" => Some(y_sweet(dir)),
        _ => None,
    }
}

async fn y_websocket(dir: &Path, progress: &Progress) -> Result<Contender, String> {
    let home = install(dir, "y-websocket", Y_WEBSOCKET, progress).await?;
    let program = home.join("node_modules/y-websocket/bin/server.cjs");
    let port = free_port()?;
    contender(&format!(
        "name=y-websocket url=ws://127.0.0.1:{port} start=env HOST=127.0.0.1 PORT={port} node {}",
        program.display()
    ))
}

async fn hocuspocus(dir: &Path, progress: &Progress) -> Result<Contender, String> {
    let home = install(dir, "hocuspocus", HOCUSPOCUS, progress).await?;
    let program = home.join("server.mjs");
    std::fs::write(&program, HOCUSPOCUS_PROGRAM).map_err(|error| format!("{}: {error}", program.display()))?;
    let port = free_port()?;
    contender(&format!(
        "name=hocuspocus dialect=hocuspocus url=ws://127.0.0.1:{port} start=env PORT={port} node {}",
        program.display()
    ))
}

/// Its npm package holds no server but fetches a binary from elsewhere; the crate of the same name builds one.
fn y_sweet(dir: &Path) -> Result<Contender, String> {
    let here = dir.join("bin/y-sweet");
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let program = std::iter::once(here)
        .chain(std::env::split_paths(&paths).map(|path| path.join("y-sweet")))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            let root = dir.display();
            format!("no y-sweet in the path; `cargo install y-sweet@0.9.1 --locked --root {root}` builds one")
        })?;
    let port = free_port()?;
    contender(&format!(
        "name=y-sweet dialect=y-sweet url=ws://127.0.0.1:{port} start={} serve --host 127.0.0.1 --port {port}",
        program.display()
    ))
}

fn contender(line: &str) -> Result<Contender, String> {
    line.parse().map_err(|error: super::ContenderError| error.to_string())
}

/// Installs a package once; answers the folder that holds its `node_modules`.
async fn install(dir: &Path, name: &str, package: &str, progress: &Progress) -> Result<PathBuf, String> {
    let home = std::path::absolute(dir.join(name)).map_err(|error| error.to_string())?;
    let folder = package.rsplit_once('@').map_or(package, |(folder, _)| folder);
    if home.join("node_modules").join(folder).is_dir() {
        return Ok(home);
    }
    progress.at(|| format!("installing {package} by npm"));
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let installed = Command::new("npm")
        .args(["install", "--prefix"])
        .arg(&home)
        .args(["--no-audit", "--no-fund", "--loglevel=error", package])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| format!("npm cannot be started: {error}"))?;
    match installed.status.success() {
        true => Ok(home),
        false => {
            let said = String::from_utf8_lossy(&installed.stderr);
            Err(format!("npm could not install {package}: {}", said.lines().next().unwrap_or("no word")))
        }
    }
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_cannot_be_had_is_one_clear_line() {
        let nowhere = std::env::temp_dir().join("loadtest-no-peers-here");
        // Where the machine has one, there is nothing to skip.
        if let Err(why) = y_sweet(&nowhere) {
            assert!(why.contains("cargo install y-sweet") && !why.contains('\n'), "{why}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let unknown = runtime.block_on(preset("name=x url=ws://h:1 start=y", &nowhere, &Progress::quiet()));
        assert!(unknown.is_none(), "a line of its own is no preset");
    }
}
