// Documents: dropped, pasted or chosen, with their folders; uploaded a few at a time, and asked for.

import { answered, byId, call, notice, quiet } from './api.js';
import { valid, wanted } from './asking.js';

/** A browser has six connections for a page, and one of them carries the events. */
const AT_ONCE = 3;

const queue = [];
let running = 0;
let done = 0;
let all = 0;
let failed = 0;
let folder = '';
let largest = Infinity;

/** Where documents go whose notification is not to start a job, and how many bytes one may have. */
export function limits(unannounced, largestDocument) {
  folder = unannounced;
  largest = largestDocument;
}

function progress() {
  byId('uploading').hidden = running === 0;
  byId('uploaded').max = all;
  byId('uploaded').value = done;
  byId('uploading-text').textContent = `${done - failed} of ${all} uploaded${failed ? `, ${failed} not` : ''}`;
}

/** Uploads files under their paths, as [path, file], and asks for what the form says now. */
function upload(files) {
  if (!files.length || !valid()) return;
  quiet();
  const job = wanted();
  if (running === 0) [done, all, failed] = [0, 0, 0];
  all += files.length;
  for (const [path, file] of files) queue.push({ path, file, job });
  while (running < AT_ONCE && queue.length) {
    running += 1;
    sendAll().finally(() => {
      running -= 1;
      progress();
      if (running === 0 && failed > 1) notice(`${failed} of ${all} documents were not uploaded`);
    });
  }
  progress();
}

async function sendAll() {
  while (queue.length) {
    const { path, file, job } = queue.shift();
    try {
      await send(path, file, job);
    } catch (error) {
      failed += 1;
      notice(`${path}: ${error.message}`);
    }
    done += 1;
    progress();
  }
}

async function send(path, file, form) {
  if (file.size > largest) throw new Error(`it has ${file.size} bytes, and ${largest} is the most`);
  // What is dropped with the folder's own name is not announced either.
  const inside = path.startsWith(folder);
  const job = form ?? (inside ? {} : null);
  const name = job && !inside ? `${folder}${path}` : path;
  const object = await answered(fetch(`api/documents?name=${encodeURIComponent(name)}`, {
    method: 'POST',
    headers: { 'content-type': file.type || 'application/octet-stream' },
    body: file,
  }));
  if (job) await call('POST', 'api/jobs', { ...job, source: `gs://${object.bucket}/${object.name}`, generation: object.generation });
}

/** Every file below an entry of the file system. */
async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
    return [[entry.fullPath.replace(/^\//, ''), file]];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    // It gives a hundred at a time, and none when there are no more.
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!some.length) return found;
    for (const one of some) {
      for (const file of await filesOf(one)) found.push(file);
    }
  }
}

/** What a drop or a paste brought. Its items are gone when the event is over: they are taken at once. */
async function transferred(data) {
  const items = [...data.items].filter((item) => item.kind === 'file');
  const entries = items.map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]).filter(([entry, file]) => entry || file);
  const files = [];
  for (const [entry, file] of entries) {
    try {
      for (const one of entry ? await filesOf(entry) : [[file.name, file]]) files.push(one);
    } catch (error) {
      notice(`${(entry ?? file).name}: ${error.message}`);
    }
  }
  if (items.length && !files.length) notice('there is no file in it');
  upload(files);
}

/** Lets documents come. */
export function setUp() {
  const drop = byId('drop');
  for (const [button, input] of [['choose-files', 'files'], ['choose-folder', 'folder']]) {
    byId(button).addEventListener('click', () => byId(input).click());
    byId(input).addEventListener('change', (event) => {
      upload([...event.target.files].map((file) => [file.webkitRelativePath || file.name, file]));
      event.target.value = '';
    });
  }
  // A file that misses the target must not replace the page.
  for (const type of ['dragover', 'drop']) addEventListener(type, (event) => event.preventDefault());
  addEventListener('dragover', () => drop.classList.add('over'));
  addEventListener('dragleave', (event) => { if (!event.relatedTarget) drop.classList.remove('over'); });
  addEventListener('drop', (event) => {
    drop.classList.remove('over');
    transferred(event.dataTransfer);
  });
  addEventListener('paste', (event) => {
    if (event.clipboardData.files.length) transferred(event.clipboardData);
  });
}
