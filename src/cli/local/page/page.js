// The page of `platen local`: uploads, jobs as they change, and what can be broken. Talks to its own port alone.
'use strict';

const byId = (id) => document.getElementById(id);
const INPUT = 'gs://documents/';

/** An element with text and attributes; text is never markup. */
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Calls the API; throws what it says when it refuses. */
async function call(method, path, body) {
  const answer = await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  const result = await answer.json();
  if (!answer.ok) throw new Error(result.error.message);
  return result;
}

function notice(text) {
  byId('notice').textContent = text;
  byId('notice').hidden = !text;
}

/** Does it, shows what went wrong, and looks at the state again. */
async function attempt(work) {
  try {
    notice('');
    await work();
  } catch (error) {
    notice(error.message);
  }
  await refresh();
}

// Documents

const uploads = [];
let uploading = 0;

function upload(files) {
  notice('');
  uploads.push(...files);
  // A few at a time: a browser has six connections for a page, and one of them carries the events.
  while (uploading < 3 && uploads.length) sendNext();
}

async function sendNext() {
  uploading += 1;
  while (uploads.length) {
    const file = uploads.shift();
    try {
      const answer = await fetch(`api/documents?name=${encodeURIComponent(file.name)}`, {
        method: 'POST',
        headers: { 'content-type': file.type || 'application/octet-stream' },
        body: file,
      });
      if (!answer.ok) throw new Error((await answer.json()).error.message);
    } catch (error) {
      notice(`${file.name}: ${error.message}`);
    }
  }
  uploading -= 1;
}

const drop = byId('drop');
byId('files').addEventListener('change', (event) => {
  upload(event.target.files);
  event.target.value = '';
});
// A file that misses the target must not replace the page.
for (const type of ['dragover', 'drop']) addEventListener(type, (event) => event.preventDefault());
addEventListener('dragover', () => drop.classList.add('over'));
addEventListener('dragleave', (event) => { if (!event.relatedTarget) drop.classList.remove('over'); });
addEventListener('drop', (event) => {
  drop.classList.remove('over');
  upload(event.dataTransfer.files);
});

// Jobs

const rows = new Map();

function show(job) {
  let row = rows.get(job.number);
  if (!row) {
    row = byId('job').content.firstElementChild.cloneNode(true);
    rows.set(job.number, row);
    byId('jobs').prepend(row);
    byId('none').hidden = true;
  }
  const part = (name) => row.querySelector(`.${name}`);
  part('name').textContent = (job.source ?? 'a message').replace(INPUT, '');
  part('generation').textContent = job.generation ? `#${job.generation}` : '';
  part('state').textContent = job.state;
  row.dataset.state = job.state;
  const result = part('result');
  result.replaceChildren();
  for (const output of job.result?.outputs ?? []) {
    const link = element('a', output.name, { href: output.signedUrl, target: '_blank', rel: 'noopener noreferrer' });
    const pages = output.pages === null ? '' : ` ${output.pages} ${output.pages === 1 ? 'page' : 'pages'}`;
    const line = element('div');
    line.append(link, element('span', pages, { class: 'detail' }));
    for (const warning of output.warnings) line.append(element('div', warning.message, { class: 'detail' }));
    result.append(line);
  }
  const error = job.result?.error;
  if (error) result.append(element('code', error.code), element('div', error.message, { class: 'detail' }));
  if (job.deadLetter) result.append(element('div', 'The message is in the dead-letter topic.', { class: 'detail' }));
  if (job.result) {
    const details = element('details');
    details.append(element('summary', 'Result message'), element('pre', JSON.stringify(job.result, null, 2), { tabindex: 0 }));
    result.append(details);
  }
  part('time').textContent = job.result ? `${job.result.timings.totalMs} ms` : '';
}

new EventSource('api/events').addEventListener('jobs', (event) => JSON.parse(event.data).forEach(show));

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

for (const toggle of TOGGLES) {
  const label = element('label');
  toggle.box = element('input', undefined, { type: 'checkbox', role: 'switch' });
  label.append(toggle.box, ` ${toggle.text}`);
  byId('toggles').append(label);
  toggle.box.addEventListener('change', () => attempt(() => toggle.right
    ? call('PUT', 'api/rights', { ...toggle.right, granted: !toggle.box.checked })
    : call(toggle.box.checked ? 'POST' : 'DELETE', 'api/faults', toggle.fault)));
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
  parent.replaceChildren(...things.map(make));
}

async function refresh() {
  let state;
  try {
    state = await call('GET', 'api/state');
  } catch {
    byId('worker').textContent = 'platen local has ended';
    byId('worker').dataset.state = 'failed';
    return;
  }
  byId('worker').textContent = `worker: ${state.worker.state}${state.worker.pid ? ` (process ${state.worker.pid})` : ''}`;
  byId('worker').title = state.worker.reason ?? '';
  byId('worker').dataset.state = state.worker.state;
  for (const toggle of TOGGLES) {
    toggle.box.checked = toggle.right
      ? state.rights.some((one) => holds(one, toggle.right) && !one.granted)
      : state.faults.some((one) => holds(one, toggle.fault));
  }
  list('faults', state.faults, (fault) => element('li', JSON.stringify(fault)));
  list('rights', state.rights, (one) => {
    const item = element('li');
    const label = element('label');
    const box = element('input', undefined, { type: 'checkbox' });
    box.checked = one.granted;
    box.addEventListener('change', () => attempt(() => call('PUT', 'api/rights', { ...one, granted: box.checked })));
    label.append(box, ` ${one.account}: ${one.permission} on ${one.resource}`);
    item.append(label);
    return item;
  });
  byId('environment').textContent = Object.entries(state.environment)
    .map(([name, value]) => `export ${name}=${value}`).join('\n');
}

refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 2000);
