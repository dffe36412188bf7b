// What the page tells of the server: whether it is connected, whether it can store, what it is.

import { readHealth, readServer } from "./api.js";
import { h, put } from "./dom.js";
import { exact } from "./format.js";
import { banner } from "./notices.js";

const STATES = {
  live: ["Connected", "Changes are shown as they happen."],
  polling: ["Every 5 s", "The server's events cannot be heard. The list is read every 5 seconds."],
  gone: ["Not connected", "The server does not answer. What you see is what was read last."],
};
const CHECK_EVERY = 30_000;
const connection = document.getElementById("connection");
let checked = 0;

/** Show whether the list is live. */
export function showConnection(state) {
  if (connection.dataset.state === state) return;
  const [word, title] = STATES[state];
  connection.dataset.state = state;
  connection.title = title;
  connection.firstElementChild.textContent = word;
}

/** Ask now and then whether changes can be stored, and what server this is. */
export async function checkServer() {
  if (Date.now() - checked < CHECK_EVERY) return;
  checked = Date.now();
  try {
    await readHealth();
    banner("health", "");
  } catch (error) {
    if (error.status)
      banner(
        "health",
        `Changes cannot be stored: ${error.message} Sessions can be seen, but not changed.`,
      );
  }
  showServer(await readServer());
}

function showServer({ version, workspace, store, started_at: started }) {
  put(
    document.getElementById("server"),
    h("span", {}, `jupyter_sessions_ext ${version}`),
    h("span", { title: store.location }, `${workspace.root_dir} (${store.backend})`),
    h("span", {}, `Server started ${exact(started)}`),
  );
}
