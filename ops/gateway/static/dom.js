// Building and keeping elements. Data only ever becomes text: nothing here, or elsewhere, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with an id that index.html gives. */
export const $ = (id) => document.getElementById(id);

/** An HTML element: functions become listeners, everything else attributes; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** The mark that stands beside a colour, so that the colour is not needed. */
export const mark = (name) => svg("svg", { class: "mark", "aria-hidden": "true" }, svg("use", { href: `#mark-${name}` }));

/** Change a text only if it is another one: selections and screen readers are left in peace. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute, or take it away if the value is null. */
export function put(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/**
 * Make the children of an element those of a list, in its order. Elements stay who they are, so focus and hover stay too.
 * `keyOf` names an item, `make` builds its element, `update` brings the element up to date.
 */
export function keep(parent, items, keyOf, make, update = () => {}) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    const element = known.get(key) ?? make(item);
    known.delete(key);
    element.dataset.key = key;
    update(element, item);
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  for (const left of known.values()) left.remove();
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
