// An element with its properties and children; numbers in words.

export function element(tag, properties = {}, ...children) {
  const { dataset, ...plain } = properties;
  const made = Object.assign(document.createElement(tag), plain);
  Object.assign(made.dataset, dataset ?? {});
  made.append(...children);
  return made;
}

export const number = new Intl.NumberFormat("en");

export function counted(size, noun) {
  return `${number.format(size)} ${noun}${size === 1 ? "" : "s"}`;
}
