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
let healthy = true;

/** Show whether the list is live. */
export function showConnection(state) {
  if (connection.dataset.state === state) return;
  const [word, title] = STATES[state];
  connection.dataset.state = state;
  connection.title = title;
  connection.firstElementChild.textContent = word;
}

/** Ask what server this is and whether it can store changes: now and then, or, if not, each time. */
export async function checkServer() {
  if (healthy && Date.now() - checked < CHECK_EVERY) return;
  checked = Date.now();
  try {
    showServer(await readServer());
    await readHealth();
    healthy = true;
    banner("health", "");
  } catch (error) {
    if (!error.status) return;
    healthy = false;
    banner("health", `Sessions can be seen, but not changed: ${error.message}`);
  }
}

function showServer({ version, workspace, store, started_at: started }) {
  put(
    document.getElementById("server"),
    h("span", {}, `jupyter_sessions_ext ${version}`),
    h("span", { title: store.location }, `${workspace.root_dir} (${store.backend})`),
    h("span", {}, `Server started ${exact(started)}`),
  );
}
