// The page: when what is asked of the server, and where it is shown.

import { actNow, ask, countEvent } from "./actions.js";
import { Gone, readKernelNames, readKernels, readOthers, readSessions } from "./api.js";
import { Bar } from "./bar.js";
import { Drawer } from "./drawer.js";
import { filter, fromAddress, offer, onFilter, reset, toAddress } from "./filters.js";
import { Kernels } from "./kernels.js";
import { makeList, PAGE_SIZE, showEmpty } from "./list.js";
import { Live } from "./live.js";
import { banner } from "./notices.js";
import { Pages } from "./pages.js";
import { rename } from "./rename.js";
import { Selection } from "./selection.js";
import { checkServer, showConnection } from "./server.js";
import { kernelName, nameKernels } from "./session.js";
import { Sort } from "./sort.js";
import { ACTIONS } from "./words.js";

const selection = new Selection();
let page = null;
let reading = new AbortController();

const sort = new Sort(startOver);
sort.set(fromAddress(Sort.names));

const list = makeList({
  onSort: (column) => sort.toggle(column),
  selected: (item) => selection.has(item),
  choose: (items, on) => choose(() => selection.choose(items, on, page.items)),
  open: (item) => drawer.open(item),
});
const bar = new Bar({
  act: actOnSelected,
  chooseAll: () => choose(() => selection.chooseAll()),
  clear: () => choose(() => selection.clear()),
});
const drawer = new Drawer(actOnOne);
const kernels = new Kernels(() => live.now());
const pages = new Pages(() => reread());

onFilter(() => {
  selection.clear();
  startOver();
});
toAddress(sort.value);

const live = new Live({ read, onEvent, onState });

/** Go to the first page, as the list is another one. */
function startOver() {
  pages.first();
  toAddress(sort.value);
  reread();
}

/** Read at once; what is being read is not wanted any more. */
function reread() {
  reading.abort();
  document.getElementById("list").setAttribute("aria-busy", "true");
  live.now();
}

/** Read all that is shown. Only a server that does not answer is the caller's to handle. */
async function read() {
  reading = new AbortController();
  const { signal } = reading;
  const filters = filter();
  const other = filters.state === "live" ? "dormant" : "live";
  try {
    const [sessions, others, running] = await Promise.all([
      readSessions(
        { ...filters, sort: sort.value, limit: PAGE_SIZE, cursor: pages.cursor },
        signal,
      ),
      readOthers({ ...filters, state: other, limit: 1 }, signal),
      readKernels(signal),
    ]);
    if (!sessions.items.length && pages.back()) return live.soon();
    show(sessions, others, running, filters);
    banner("refused", "");
    checkServer();
    await drawer.refresh();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof Gone || !error.status) throw error;
    refused(error);
  }
}

function refused(error) {
  // A cursor that the server does not know any more: its page is lost, the list is not.
  if (error.status === 400 && pages.cursor) return startOver();
  const text =
    error.status === 403 ? `You may not see the sessions here. ${error.message}` : error.message;
  return banner("refused", text, { act: { label: "Reload", run: () => location.reload() } });
}

function show(sessions, others, running, filters) {
  page = sessions;
  selection.refresh(page.items);
  for (const { type, kernel_name: name } of page.items) {
    offer("type", type, type);
    offer("kernel_name", name, kernelName(name));
  }
  countStates(filters.state, page.total, others.total);
  showEmpty({ items: page.items, filtered: Object.keys(filters).length > 0, onReset: reset });
  pages.show(page, PAGE_SIZE);
  kernels.show(running.items);
  list.showSort(sort.value);
  showSelection();
  document.getElementById("list").setAttribute("aria-busy", "false");
}

/** Show how many there are in each state, with the other filters as they are. */
function countStates(state, here, there) {
  const counts = {
    all: state ? here + there : here,
    live: state === "live" ? here : there,
    dormant: state === "live" ? there : here - (state ? 0 : there),
  };
  for (const [name, number] of Object.entries(counts)) {
    document.querySelector(`[data-count="${name}"]`).textContent = number.toLocaleString("en");
  }
}

function choose(change) {
  change();
  showSelection();
}

function showSelection() {
  list.show(page.items, (item) => selection.has(item));
  list.tickAll(page.items);
  bar.show(page, { first: pages.number * PAGE_SIZE, selection });
}

async function actOnSelected(action) {
  const failed = await ask(action, selection.target(filter()));
  if (!failed) return;
  selection.keep(failed, page.items);
  live.now();
}

async function actOnOne(action, session) {
  if (action === "rename") return rename(session.id, () => live.now());
  const { asks, event } = ACTIONS[action];
  const failed = asks ? await ask(action, { ids: [session.id] }) : await actNow(action, session);
  if (failed && !failed.length && event === "deleted") drawer.close();
  return live.now();
}

function onEvent(event) {
  countEvent(event);
  if (event.action !== "deleted" && event.action !== "expired") return;
  selection.drop(event.session_id);
  drawer.setGone(event.session_id);
}

function onState(state) {
  showConnection(state);
  banner(
    "gone",
    state === "gone"
      ? "The server does not answer. You see what was read last; this page tries again by itself."
      : "",
    {
      act: { label: "Try now", run: () => live.now() },
    },
  );
}

readKernelNames()
  .then((names) => {
    nameKernels(names);
    for (const [name, label] of Object.entries(names)) offer("kernel_name", name, label);
    live.now();
  })
  .catch(() => {}); // Who may not read kernelspecs sees their short names.
