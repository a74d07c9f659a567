// Names and types on both sides of the border: snake_case and texts there, camelCase and dates here.

"use strict";

/** What is an application's own, and stays as it is. */
const OPAQUE = new Set(["data", "claims", "schema", "metadata"]);
const TIME = /_at$|^time$/;

const rename = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** What came over the border. */
const camel = (value) => {
  if (Array.isArray(value)) return value.map(camel);
  if (value === null || typeof value !== "object") return value;
  const renamed = {};
  for (const [name, member] of Object.entries(value)) {
    if (OPAQUE.has(name)) renamed[name] = member;
    else if (TIME.test(name) && typeof member === "string") renamed[rename(name)] = new Date(member);
    else renamed[rename(name)] = camel(member);
  }
  return renamed;
};

/** What goes over the border. Members that are undefined are left out. */
const snake = (value) => {
  if (Array.isArray(value)) return value.map(snake);
  if (value instanceof Date) return value.toISOString();
  if (value === null || typeof value !== "object") return value;
  const renamed = {};
  for (const [name, member] of Object.entries(value)) {
    const other = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    if (member !== undefined) renamed[other] = OPAQUE.has(other) ? member : snake(member);
  }
  return renamed;
};

module.exports = { camel, snake };
