// What to ask for: a form made of the schema of jobs, and the job that it says.

import { byId, call, element } from './api.js';

/** What the page says itself, or cannot ask for. */
const LEFT_OUT = ['source', 'generation', 'outputs', 'userData'];

let schema;
let outputs;
let links;

/** Follows a reference, and takes of several forms the one that is something. */
function resolved(property) {
  const { $ref, anyOf, ...own } = property;
  if ($ref) return { ...resolved(schema.$defs[$ref.split('/').pop()]), ...own };
  if (anyOf) return { ...resolved(anyOf.find((form) => form.type !== 'null')), ...own };
  return property;
}

/** What can be chosen: a list of values, or null where something is written. */
function choices({ type, enum: values, oneOf }) {
  if (oneOf) return oneOf.map((one) => one.const);
  if (values) return values.filter((value) => value !== '');
  return type === 'boolean' ? [true, false] : null;
}

const shown = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
let fields = 0;

/** One property as a labelled control; `read` gives its value, undefined when it is left alone. */
function field(name, property) {
  const what = resolved(property);
  if (what.type === 'object') {
    const group = element('fieldset', undefined, { 'data-name': name });
    group.append(element('legend', name));
    const inner = group_of(what.properties ?? {});
    if (what.description) group.title = what.description;
    group.append(...inner.nodes);
    return { node: group, read: inner.read };
  }
  const values = choices(what);
  if (!values && what.type === undefined) return null;
  fields += 1;
  const id = `field-${fields}`;
  const item = element('div', undefined, { class: 'field', 'data-name': name });
  let control;
  let read;
  if (values) {
    control = element('select', undefined, { id });
    control.append(element('option', what.default === undefined ? '' : `(${shown(what.default)})`, { value: '' }));
    for (const value of values) control.append(element('option', shown(value), { value: JSON.stringify(value) }));
    read = () => (control.value === '' ? undefined : JSON.parse(control.value));
  } else {
    const number = what.type === 'integer' || what.type === 'number';
    control = element('input', undefined, { id, type: number ? 'number' : 'text' });
    for (const [key, attribute] of [['minimum', 'min'], ['maximum', 'max'], ['maxLength', 'maxlength']]) {
      if (what[key] !== undefined) control.setAttribute(attribute, what[key]);
    }
    // A pattern is unanchored in a schema, and anchored in a form.
    if (what.pattern) control.setAttribute('pattern', `.*(?:${what.pattern}).*`);
    if (what.default !== undefined && what.default !== null) control.placeholder = shown(what.default);
    read = () => {
      if (control.value === '') return undefined;
      return number ? Number(control.value) : control.value;
    };
  }
  if (what.description) {
    control.title = what.description;
    item.title = what.description;
  }
  item.append(element('label', name, { for: id }), control);
  return { node: item, read };
}

/** All properties of an object; `read` gives the object, undefined when nothing in it is said. */
function group_of(properties, leftOut = []) {
  const made = Object.entries(properties)
    .filter(([name]) => !leftOut.includes(name))
    .map(([name, property]) => [name, field(name, property)])
    .filter(([, one]) => one);
  return {
    nodes: made.map(([, one]) => one.node),
    read() {
      const said = made.map(([name, one]) => [name, one.read()]).filter(([, value]) => value !== undefined);
      return said.length ? Object.fromEntries(said) : undefined;
    },
  };
}

/** The options of a format: the branch of the schema that is for it. */
function options_of(format) {
  const branch = resolved({ $ref: '#/$defs/Output' }).allOf
    .find((one) => one.if.properties.format.enum.includes(format));
  return branch?.then.properties.options.properties ?? {};
}

/** One output: its format, its name, and the options of the format. */
function output(format) {
  const node = element('fieldset', undefined, { class: 'output' });
  const of_output = resolved({ $ref: '#/$defs/Output' }).properties;
  const head = element('div', undefined, { class: 'output-head' });
  const select = element('select', undefined, { 'aria-label': 'Format' });
  for (const one of resolved(of_output.format).enum) select.append(element('option', one, { value: one }));
  select.value = format;
  const name = field('name', { ...of_output.name, type: 'string', default: undefined });
  const remove = element('button', 'Remove', { type: 'button', class: 'remove' });
  const more = element('details', undefined, { class: 'options' });
  const count = element('summary');
  const find = element('input', undefined, { type: 'search', placeholder: 'Find an option', 'aria-label': 'Find an option' });
  const list = element('div', undefined, { class: 'fields' });
  more.append(count, find, list);
  head.append(element('legend', 'Output'), select, name.node, remove);
  node.append(head, more);
  const one = { node, format: () => select.value, options: null, name };
  const fill = () => {
    const properties = options_of(select.value);
    one.options = group_of(properties);
    list.replaceChildren(...one.options.nodes);
    count.textContent = `${Object.keys(properties).length} options of ${select.value}`;
    find.value = '';
  };
  find.addEventListener('input', (event) => {
    const text = find.value.toLowerCase();
    for (const item of list.children) item.hidden = !`${item.dataset.name} ${item.title}`.toLowerCase().includes(text);
    event.stopPropagation();
  });
  select.addEventListener('change', fill);
  remove.addEventListener('click', () => {
    outputs.splice(outputs.indexOf(one), 1);
    node.remove();
    if (!outputs.length) add('pdf');
    tell();
    byId('add-output').focus();
  });
  one.read = () => {
    const said = { format: one.format() };
    const options = one.options.read();
    if (name.read()) said.name = name.read();
    if (options) said.options = options;
    return said;
  };
  fill();
  return one;
}

function add(format) {
  const one = output(format);
  outputs.push(one);
  byId('outputs').append(one.node);
}

/** What is asked for beside the source; null when nothing but what a notification brings anyway. */
export function wanted() {
  if (!schema) return null;
  const job = links.read() ?? {};
  const asked = outputs.map((one) => one.read());
  const plain = asked.length === 1 && Object.keys(asked[0]).length === 1 && asked[0].format === 'pdf';
  if (plain && !Object.keys(job).length) return null;
  return { ...job, outputs: asked };
}

/** Whether the form holds what it may; shows what not. */
export function valid() {
  const form = byId('job-form');
  if (form.checkValidity()) return true;
  byId('asking').open = true;
  form.querySelector(':invalid:not(fieldset)')?.closest('details')?.setAttribute('open', '');
  form.reportValidity();
  return false;
}

/** One line about a job, which anybody may have written: nothing of it need be as it should. */
export function inWords(job) {
  const entries = (what) => (what !== null && typeof what === 'object' ? Object.entries(what) : []);
  const ofOutput = (output) => {
    const { format, name, options } = output ?? {};
    return [format && shown(format), name && `as ${shown(name)}`, ...entries(options).map(([key, value]) => `${key} ${shown(value)}`)]
      .filter(Boolean).join(' ');
  };
  const others = entries(job)
    .filter(([key]) => !LEFT_OUT.includes(key))
    .map(([key, value]) => `${key} ${value !== null && typeof value === 'object' ? entries(value).map(([name, one]) => `${name} ${shown(one)}`).join(' ') : shown(value)}`);
  const outputs = job.outputs ?? [{ format: 'pdf' }];
  return [...(Array.isArray(outputs) ? outputs.map(ofOutput) : [shown(outputs)]), ...others].join(', ');
}

function tell() {
  const job = wanted();
  byId('asked').textContent = job ? inWords(job) : 'one PDF';
  byId('asking').classList.toggle('chosen', job !== null);
}

function start() {
  const form = byId('job-form');
  outputs = [];
  links = group_of(schema.properties, LEFT_OUT);
  const list = element('div', undefined, { id: 'outputs' });
  const buttons = element('p', undefined, { class: 'buttons' });
  const another = element('button', 'Another output', { type: 'button', id: 'add-output' });
  const reset = element('button', 'As at first', { type: 'reset' });
  buttons.append(another, reset);
  const job = element('div', undefined, { class: 'fields job-fields' });
  job.append(...links.nodes);
  form.replaceChildren(list, job, buttons);
  another.addEventListener('click', () => {
    const taken = outputs.map((one) => one.format());
    add(['png', 'txt', 'html'].find((format) => !taken.includes(format)) ?? 'pdf');
    tell();
    outputs.at(-1).node.querySelector('select').focus();
  });
  add('pdf');
  tell();
}

/** Makes the form. */
export async function setUp() {
  schema = await call('GET', 'api/schema');
  const form = byId('job-form');
  form.addEventListener('input', tell);
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', (event) => {
    event.preventDefault();
    start();
    byId('add-output').focus();
  });
  start();
}
