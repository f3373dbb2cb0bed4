// The page of `platen local`: documents, jobs as they change, and what can be broken. Talks to its own port alone.

import { byId, call, element, notice, quiet, redraw, say } from './api.js';
import * as asking from './asking.js';
import * as documents from './documents.js';
import * as jobs from './jobs.js';

/** Does it, shows what went wrong, and looks at the state again. */
async function attempt(work) {
  try {
    quiet();
    // What was asked for before is not shown after.
    asked += 1;
    await work();
  } catch (error) {
    notice(error.message);
  }
  await refresh();
}

// Breaking

const right = (account, permission, resource) => ({ account, permission, resource });
/** What the switches break: a right that is taken away, or a fault that is there until it is taken back. */
const TOGGLES = [
  { text: 'The worker may not read documents', right: right('worker', 'storage.objects.get', 'bucket/input') },
  { text: 'The worker may not sign', right: right('worker', 'iam.serviceAccounts.signBlob', 'account/signer') },
  { text: 'The worker may not publish results', right: right('worker', 'pubsub.topics.publish', 'topic/results') },
  { text: 'Cloud Storage answers 503 to writes', fault: { peer: 'storage', method: 'POST', pathPrefix: '/upload/', count: null, effect: { status: 503 } } },
  { text: 'signBlob answers 503', fault: { peer: 'iam', method: 'POST', pathPrefix: '/v1/', count: null, effect: { status: 503 } } },
  { text: 'Downloads are slow', fault: { peer: 'storage', method: 'GET', pathPrefix: '/', count: null, effect: { delayMilliseconds: 3000 } } },
];

/** Whether one object holds all that another says. */
const holds = (whole, part) => typeof part !== 'object' || part === null
  ? whole === part
  : whole !== null && typeof whole === 'object' && Object.keys(part).every((key) => holds(whole[key], part[key]));

/** What is being changed: what was asked for before says nothing of it. */
const changing = new Set();

/** Does what a box says; one that was refused is as it was. */
async function changed(box, work) {
  const on = box.checked;
  changing.add(box);
  try {
    await work(on);
  } catch (error) {
    box.checked = !on;
    throw error;
  } finally {
    changing.delete(box);
  }
}

async function turn(toggle, on) {
  if (toggle.right) return call('PUT', 'api/rights', { ...toggle.right, granted: !on });
  if (on) return call('POST', 'api/faults', toggle.fault);
  // Another tab may have added it as well.
  for (const one of (await call('GET', 'api/faults')).filter((fault) => holds(fault, toggle.fault))) {
    await call('DELETE', 'api/faults', one);
  }
}

for (const toggle of TOGGLES) {
  const label = element('label');
  toggle.box = element('input', undefined, { type: 'checkbox', role: 'switch' });
  label.append(toggle.box, ` ${toggle.text}`);
  byId('toggles').append(label);
  toggle.box.addEventListener('change', () => attempt(() => changed(toggle.box, (on) => turn(toggle, on))));
}

for (const button of document.querySelectorAll('[data-action]')) {
  button.addEventListener('click', () => attempt(() => call('POST', 'api/worker', { action: button.dataset.action })));
}
byId('clear').addEventListener('click', () => attempt(() => call('DELETE', 'api/faults')));

/** Puts one item for each thing into a list, unless they are there already: what has the focus keeps it. */
function list(id, things, make) {
  const parent = byId(id);
  const text = JSON.stringify(things);
  if (parent.dataset.shown === text) return;
  parent.dataset.shown = text;
  redraw(parent, things.map(make));
}

/** After this long without an answer the page says so. */
const PATIENCE = 5000;
/** What the page begins with, as far as it has not succeeded: it is tried again when there is somebody to ask. */
const missing = [asking.setUp, jobs.setUp];
let asked = 0;

async function refresh() {
  asked += 1;
  const mine = asked;
  let state;
  try {
    state = await call('GET', 'api/state', undefined, { signal: AbortSignal.timeout(PATIENCE) });
  } catch (error) {
    if (mine !== asked) return;
    say(byId('worker'), error.name === 'TimeoutError'
      ? 'platen local does not answer'
      : 'platen local has ended: this page goes on when it is started again on this port');
    byId('worker').dataset.state = 'failed';
    return;
  }
  // What was asked for before something was changed is old.
  if (mine === asked) show(state);
  for (const part of missing.splice(0)) {
    part().catch((error) => {
      missing.push(part);
      notice(error.message);
    });
  }
}

function show(state) {
  documents.limits(state.unannounced, state.largestDocument);
  jobs.unannounced(state.unannounced);
  const { state: worker, pid, reason } = state.worker;
  say(byId('worker'), `worker: ${worker}${pid ? ` (process ${pid})` : ''}${reason ? `: ${reason}` : ''}`);
  byId('worker').dataset.state = worker;
  for (const toggle of TOGGLES.filter(({ box }) => !changing.has(box))) {
    toggle.box.checked = toggle.right
      ? state.rights.some((one) => holds(one, toggle.right) && !one.granted)
      : state.faults.some((one) => holds(one, toggle.fault));
  }
  list('faults', state.faults, (fault) => element('li', JSON.stringify(fault, null, 1).replace(/\n */g, ' ')));
  list('rights', state.rights, (one) => {
    const item = element('li');
    const label = element('label');
    const box = element('input', undefined, { type: 'checkbox' });
    box.checked = one.granted;
    box.addEventListener('change', () => attempt(() => changed(box, (granted) => call('PUT', 'api/rights', { ...one, granted }))));
    label.append(box, ` ${one.account}: ${one.permission} on ${one.resource}`);
    item.append(label);
    return item;
  });
  say(byId('environment'), Object.entries(state.environment)
    .map(([name, value]) => `export ${name}=${value}`).join('\n'));
}

let polling = false;

async function poll() {
  if (document.hidden || polling) return;
  polling = true;
  await refresh();
  polling = false;
}

documents.setUp();
poll();
setInterval(poll, 2000);
document.addEventListener('visibilitychange', poll);
