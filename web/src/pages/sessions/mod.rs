//! Sessions: found, looked into, finished, assigned to projects; and what is in them.

mod list;
mod one;
mod parts;
mod projects;
mod samplers;

pub(crate) use list::sessions_page;
pub(crate) use one::session_page;
pub(crate) use projects::projects_page;
pub(crate) use samplers::samplers_page;
