// What all of the page uses: elements, calls to its own port, and the place for what went wrong.

export const byId = (id) => document.getElementById(id);

/** An element with text and attributes; text is never markup. */
export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** The answer's JSON; throws what the API says when it refuses. */
export async function answered(answer) {
  const result = await answer.json();
  if (!answer.ok) throw new Error(result.error.message);
  return result;
}

/** Calls the API with a JSON body, or none. */
export async function call(method, path, body) {
  return answered(await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body) }));
}

const NOTICES = 5;

/** One more line about what went wrong, the last few. */
export function notice(text) {
  const place = byId('notice');
  place.hidden = false;
  place.append(element('div', text));
  while (place.childElementCount > NOTICES) place.firstElementChild.remove();
}

/** Forgets what went wrong. */
export function quiet() {
  byId('notice').hidden = true;
  byId('notice').replaceChildren();
}
