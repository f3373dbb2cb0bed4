// What all of the page uses: elements, calls to its own port, and the place for what went wrong.

export const byId = (id) => document.getElementById(id);

/** An element with text and attributes; text is never markup. */
export function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Says it there, once: what is written again is read aloud again, and a selection in it is gone. */
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** Puts parts in the place of those that are there, and gives the focus to what stands where it was. */
export function redraw(place, parts) {
  const controls = () => [...place.querySelectorAll('a, button, input, [tabindex]')];
  const at = controls().indexOf(document.activeElement);
  place.replaceChildren(...parts);
  if (at >= 0) controls()[at]?.focus({ preventScroll: true });
}

/** The answer's JSON; throws what the API says when it refuses. */
export async function answered(asked) {
  let answer;
  try {
    answer = await asked;
  } catch (error) {
    // A browser says no more than that it failed to fetch.
    if (error instanceof TypeError) throw new Error('platen local does not answer: has it ended?');
    throw error;
  }
  const result = await answer.json();
  if (!answer.ok) throw new Error(result.error.message);
  return result;
}

/** Calls the API with a JSON body, or none. */
export function call(method, path, body, more = {}) {
  return answered(fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body), ...more }));
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
