// Jobs, each a row that shows its steps as they come. However many change at once, a frame draws a few of them.

import { byId, call, element, notice, redraw, say } from './api.js';
import { inWords } from './asking.js';

const INPUT = 'gs://documents/';
/** Rows that one frame draws. */
const A_FRAME = 20;
/** Jobs that are remembered, as at the other end. */
const REMEMBERED = 1000;
const STEPS = ['uploaded', 'delivered', 'fetched', 'converted', 'stored', 'signed', 'published', 'acknowledged'];
/** Types that are shown as they are: nothing in them can act on this page. */
const SHOWN = ['application/pdf', 'image/png', 'image/jpeg', 'text/plain'];

const jobs = new Map();
const rows = new Map();
const changed = new Set();
/** Without a change for this long, what there is is read aloud. */
const PAUSE = 1000;
/** Before an event stream that was refused is asked for again. */
const AGAIN = 2000;

let drawing = false;
let saying;
let events;
let fresh = true;
let failures = {};
let folder = '';

/** Where documents go whose notification starts no job: no part of their name here. */
export function unannounced(name) {
  folder = name;
}

/** `under-way`, or how it ended: of a dead letter, and of a message that was acknowledged, there is no other word to come. */
function kind(job) {
  if (job.state !== 'waiting') return job.state;
  if (job.deadLetter) return 'failed';
  return acknowledged(job) && !published(job) ? 'ignored' : 'under-way';
}

/** Whether its result is on its way here. */
const published = (job) => job.deliveries.at(-1)?.steps.some((step) => step.name === 'published' && !step.status);

const acknowledged = (job) => {
  const last = job.deliveries.at(-1);
  return last?.ended && last.status >= 200 && last.status < 300;
};

function stateInWords(job) {
  if (job.state !== 'waiting') return job.state;
  const last = job.deliveries.at(-1);
  if (job.deadLetter) return 'dead letter';
  if (!last) return 'to be delivered';
  const which = last.attempt > 1 ? `, delivery ${last.attempt}` : '';
  if (!last.ended) return `under way${which}`;
  if (acknowledged(job)) return published(job) ? 'under way' : 'no result';
  return `refused with ${last.status ?? 'no answer'}${which}`;
}

/** The steps of the last delivery, with milliseconds since the first of all. */
function steps(job) {
  const last = job.deliveries.at(-1);
  const begun = Date.parse(job.uploaded ?? job.published);
  const seen = [];
  if (job.uploaded) seen.push({ name: 'uploaded', at: begun });
  if (last) seen.push({ name: last.attempt > 1 ? `delivery ${last.attempt}` : 'delivered', step: 'delivered', at: last.at }, ...last.steps);
  if (last?.ended) {
    seen.push(acknowledged(job)
      ? { name: 'acknowledged', at: last.ended }
      : { name: 'worker', status: last.status ?? 'no answer', at: last.ended, times: 1 });
  }
  const from = Number.isNaN(begun) ? seen[0]?.at : begun;
  return seen.map((one) => ({ ...one, after: one.at - from }));
}

/** The name without what stands before the names of all. */
const without = (name, prefix) => (name.startsWith(prefix) ? name.slice(prefix.length) : name);

/** A link to where a result says, which anybody may have written; text where that is no web address. */
function link(text, url, attributes) {
  const known = URL.canParse(url) && ['http:', 'https:'].includes(new URL(url).protocol);
  return known ? element('a', text, { href: url, target: '_blank', ...attributes }) : element('span', text, { class: 'detail' });
}

/** Never longer than three digits and a unit, so that all steps have room in a line. */
function duration(ms) {
  if (ms < 1000) return `${ms} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

function drawSteps(place, job) {
  const seen = steps(job);
  const items = seen.map(({ name, status, times, after }) => {
    const item = element('li', undefined, { class: status ? 'bad' : 'good', 'data-step': name });
    item.append(`${name}${status ? ` ${status}` : ''}${times > 1 ? ` ×${times}` : ''} `, element('span', duration(after), { class: 'number' }));
    return item;
  });
  if (kind(job) === 'under-way') {
    for (const name of STEPS.filter((one) => !seen.some((step) => (step.step ?? step.name) === one))) {
      items.push(element('li', name, { class: 'to-come' }));
    }
  }
  place.replaceChildren(...items);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
    button.setAttribute('aria-label', button.getAttribute('aria-label').replace('Copy link', 'Copied link'));
  } catch (error) {
    notice(`the link cannot be copied: ${error.message}`);
  }
}

function drawOutput(job, output, index) {
  const line = element('div', undefined, { class: 'output-line' });
  if (SHOWN.includes(String(output.contentType).split(';')[0])) {
    line.append(element('a', `Open ${output.format}`, { href: `api/jobs/${job.number}/outputs/${index}`, target: '_blank', rel: 'noopener', class: 'open', 'aria-label': `Open ${output.format}: ${output.name}` }), ' ');
  }
  line.append(link(without(String(output.name), folder), output.signedUrl, { rel: 'noopener noreferrer', class: 'signed', title: 'Through its signed URL' }));
  const pages = typeof output.pages !== 'number' ? '' : ` ${output.pages} ${output.pages === 1 ? 'page' : 'pages'} `;
  line.append(element('span', pages, { class: 'detail' }));
  const button = element('button', 'Copy link', { type: 'button', class: 'copy', 'aria-label': `Copy link to ${output.name}` });
  button.addEventListener('click', () => copy(output.signedUrl, button));
  line.append(button, ' ', element('span', '', { class: 'detail expires', 'data-at': Date.parse(output.expiresAt) }));
  for (const warning of output.warnings ?? []) line.append(element('div', `${warning.code}: ${warning.message}`, { class: 'detail' }));
  return line;
}

function drawResult(place, job) {
  const parts = (job.result?.outputs ?? []).map((output, index) => drawOutput(job, output, index));
  const error = job.result?.error;
  if (error) {
    const line = element('p', undefined, { class: 'error' });
    line.append(element('code', error.code), ` ${error.message}`);
    parts.push(line);
    const advice = failures[error.code]?.whatToDo;
    if (advice) parts.push(element('p', `What to do: ${advice}`, { class: 'detail advice' }));
  } else if (job.state === 'superseded') {
    parts.push(element('p', 'A newer generation of the document is out, or this one is gone.', { class: 'detail' }));
  }
  if (kind(job) === 'ignored') parts.push(element('p', 'Acknowledged without a result: the worker leaves such objects alone.', { class: 'detail' }));
  if (job.deadLetter) parts.push(element('p', 'The message is in the dead-letter topic. Once the cause is mended, deliver it again.', { class: 'detail' }));
  redraw(place, parts);
  expire(place, Date.now());
}

function drawDetails(place, job) {
  const facts = element('dl');
  const fact = (name, text) => { if (text) facts.append(element('dt', name), element('dd', text)); };
  fact('Object', job.source && `${job.source}${job.generation ? ` #${job.generation}` : ''}`);
  fact('Message', job.messageId ?? 'none: the worker was asked directly');
  for (const { attempt, at, ended, status, steps: calls } of job.deliveries) {
    const failed = calls.filter((one) => one.status).map(({ name, status: code, times }) => `${name} ${code}${times > 1 ? ` ×${times}` : ''}`);
    const how = ended ? `${status ?? 'no answer'} after ${duration(ended - at)}` : 'under way';
    fact(`Delivery ${attempt}`, [`${new Date(at).toLocaleTimeString()}: ${how}`, ...failed].join(', '));
  }
  const timings = job.result?.timings;
  if (timings) fact('By the worker', Object.entries(timings).map(([name, ms]) => `${name.replace(/Ms$/, '')} ${ms}`).join(', ') + ' ms');
  const parts = [facts];
  if (job.again) {
    const button = element('button', 'Deliver the message again', { type: 'button', class: 'again' });
    button.addEventListener('click', async () => {
      try {
        await call('POST', `api/jobs/${job.number}/redeliver`);
      } catch (error) {
        notice(error.message);
      }
    });
    parts.push(button);
  }
  for (const [title, what] of [['Result message', job.result], ['Job', job.asked]]) {
    if (what) parts.push(element('h4', title), element('pre', JSON.stringify(what, null, 2), { tabindex: 0 }));
  }
  redraw(place, parts);
}

/** Draws what has changed of a part: what has the focus keeps it. */
function part(row, name, facts, draw) {
  const text = JSON.stringify(facts);
  if (row.shown[name] === text) return;
  row.shown[name] = text;
  draw();
}

function newRow(number) {
  const node = byId('job').content.firstElementChild.cloneNode(true);
  const find = (name) => node.querySelector(`.${name}`);
  const row = { node, shown: {}, name: find('name'), asked: find('asked'), state: find('state'), time: find('time'), steps: find('steps'), result: find('result'), more: find('more') };
  row.more.addEventListener('toggle', () => {
    row.shown.details = undefined;
    if (row.more.open) drawOpen(row, jobs.get(number));
    else row.more.lastElementChild.replaceChildren();
  });
  rows.set(number, row);
  byId('jobs').prepend(node);
  return row;
}

function drawOpen(row, job) {
  if (job && row.more.open) part(row, 'details', job, () => drawDetails(row.more.lastElementChild, job));
}

function draw(job) {
  const row = rows.get(job.number) ?? newRow(job.number);
  row.node.dataset.state = kind(job);
  part(row, 'head', [job.source, job.asked], () => {
    row.name.textContent = without(without(job.source ?? 'a message', INPUT), folder);
    row.more.firstElementChild.setAttribute('aria-label', `Details of ${row.name.textContent}`);
    row.asked.textContent = job.asked ? inWords(job.asked) : '';
  });
  const took = job.result?.timings?.totalMs;
  part(row, 'state', [stateInWords(job), took], () => {
    row.state.textContent = stateInWords(job);
    row.time.textContent = took === undefined ? '' : duration(took);
  });
  part(row, 'steps', [job.deliveries, kind(job)], () => drawSteps(row.steps, job));
  part(row, 'result', [job.result, job.deadLetter, kind(job)], () => drawResult(row.result, job));
  drawOpen(row, job);
  row.node.hidden = !fits(job);
}

function fits(job) {
  const which = byId('which').value;
  const named = byId('named').value.toLowerCase();
  return (!which || kind(job) === which) && (!named || (job.source ?? '').toLowerCase().includes(named));
}

function tally() {
  const counts = {};
  for (const job of jobs.values()) counts[kind(job)] = (counts[kind(job)] ?? 0) + 1;
  const words = Object.entries(counts).map(([name, count]) => `${count} ${name.replace('-', ' ')}`);
  const text = `${jobs.size} ${jobs.size === 1 ? 'job' : 'jobs'}: ${words.join(', ')}`;
  say(byId('tally'), text);
  // To be read aloud when there is a pause, not ten times a second.
  clearTimeout(saying);
  saying = setTimeout(() => say(byId('said'), text), PAUSE);
  byId('none').hidden = jobs.size > 0;
  byId('bar').hidden = jobs.size === 0;
}

function frame() {
  let left = A_FRAME;
  for (const number of changed) {
    if (left === 0) break;
    left -= 1;
    changed.delete(number);
    const job = jobs.get(number);
    try {
      if (job) draw(job);
    } catch (error) {
      // Whoever may publish on the topics may have written it: it stands in nobody else's way.
      const row = rows.get(number);
      row.result.textContent = `This cannot be shown, Details has what it says: ${error.message}`;
      drawOpen(row, job);
    }
  }
  tally();
  drawing = changed.size > 0;
  if (drawing) requestAnimationFrame(frame);
}

function forget(number) {
  jobs.delete(number);
  changed.delete(number);
  rows.get(number)?.node.remove();
  rows.delete(number);
}

function take(list) {
  if (fresh) {
    // A new connection has all jobs first: what is not among them is of another run.
    const numbers = new Set(list.map((job) => job.number));
    for (const number of [...jobs.keys()]) if (!numbers.has(number)) forget(number);
    fresh = false;
  }
  for (const job of list) {
    jobs.set(job.number, job);
    changed.add(job.number);
  }
  const all = [...jobs.keys()];
  for (const number of all.slice(0, Math.max(0, all.length - REMEMBERED))) forget(number);
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(frame);
  }
}

/** Counts the links' lifetimes down. */
function expire(place, now) {
  for (const item of place.querySelectorAll('.expires:not(.expired)')) {
    const left = Math.ceil((Number(item.dataset.at) - now) / 1000);
    const minutes = Math.floor(left / 60);
    let text = `expires in ${left} s`;
    if (left <= 0) text = 'link expired';
    else if (minutes >= 120) text = `expires in ${Math.floor(minutes / 60)} h`;
    else if (minutes >= 2) text = `expires in ${minutes} min`;
    if (item.textContent !== text) item.textContent = text;
    item.classList.toggle('expired', left <= 0);
  }
}

/** Follows the jobs for as long as somebody looks: a browser has six connections for all tabs of a host. */
function follow() {
  events?.close();
  if (document.hidden) return;
  const mine = new EventSource('api/events');
  events = mine;
  mine.addEventListener('open', () => { fresh = true; });
  mine.addEventListener('jobs', (event) => take(JSON.parse(event.data)));
  mine.addEventListener('error', () => {
    // It tries again by itself, unless it was answered otherwise: by another program on this port, say.
    if (mine === events && mine.readyState === EventSource.CLOSED) setTimeout(() => { if (mine === events) follow(); }, AGAIN);
  });
}

/** Begins to follow. */
export async function setUp() {
  failures = await call('GET', 'api/failures');
  for (const id of ['which', 'named']) {
    byId(id).addEventListener('input', () => {
      for (const [number, row] of rows) row.node.hidden = !fits(jobs.get(number));
    });
  }
  setInterval(() => { if (!document.hidden) expire(byId('jobs'), Date.now()); }, 1000);
  document.addEventListener('visibilitychange', follow);
  follow();
}
