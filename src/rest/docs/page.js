// Shows /openapi.json. Everything is set as text, nothing as HTML.
'use strict';

const METHODS = ['get', 'post', 'patch', 'put', 'delete'];

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

// Paragraphs, **bold** and `code`: all the Markdown that our descriptions have.
function prose(text) {
  return (text ?? '').split(/\n\s*\n/).filter(Boolean).map((paragraph) => {
    const pieces = paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((piece) => {
      if (piece.startsWith('`')) return element('code', '', piece.slice(1, -1));
      if (piece.startsWith('**')) return element('strong', '', piece.slice(2, -2));
      return piece;
    });
    return element('p', '', ...pieces);
  });
}

// A schema as a person would write an example of it, with the types in place of values.
function shape(api, schema, depth = 0) {
  if (!schema) return '';
  if (schema.$ref) {
    const name = schema.$ref.split('/').pop();
    return depth > 6 ? name : shape(api, api.components.schemas[name], depth + 1);
  }
  const pad = '  '.repeat(depth + 1);
  const end = '  '.repeat(depth);
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (alternatives) {
    return [...new Set(alternatives.map((one) => shape(api, one, depth)))].join(' | ');
  }
  if (schema.allOf) return schema.allOf.map((one) => shape(api, one, depth)).join(' & ');
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  const types = [schema.type].flat();
  const nullable = types.includes('null') ? ' | null' : '';
  if (types.includes('array')) return `[${shape(api, schema.items, depth)}]${nullable}`;
  if (types.includes('object') || schema.properties) {
    const fields = Object.entries(schema.properties ?? {}).map(([name, field]) => {
      const optional = schema.required?.includes(name) ? '' : '?';
      const comment = field.description ? `  // ${field.description.replace(/\s+/g, ' ')}` : '';
      return `${pad}${name}${optional}: ${shape(api, field, depth + 1)},${comment}`;
    });
    if (fields.length === 0 && schema.additionalProperties) return `{ [key]: ${shape(api, schema.additionalProperties, depth)} }${nullable}`;
    return fields.length ? `{\n${fields.join('\n')}\n${end}}${nullable}` : `{}${nullable}`;
  }
  const kind = types.filter((type) => type && type !== 'null').join(' | ') || 'any';
  return (schema.format ? `${kind} (${schema.format})` : kind) + nullable;
}

function bodies(api, content) {
  return Object.entries(content ?? {}).flatMap(([type, body]) => [
    element('code', '', type),
    element('pre', '', element('code', '', shape(api, body.schema))),
  ]);
}

function operation(api, path, method, described) {
  const body = element('div', '');
  body.append(...prose(described.description));
  if (described.parameters?.length) {
    body.append(element('h3', '', 'Parameters'));
    const rows = described.parameters.map((parameter) =>
      element('tr', '',
        element('td', '', element('code', '', parameter.name), ` ${parameter.in}${parameter.required ? '' : ', optional'}`),
        element('td', '', ...prose(parameter.description), shape(api, parameter.schema))));
    body.append(element('table', '', element('tbody', '', ...rows)));
  }
  if (described.requestBody) {
    body.append(element('h3', '', 'Body'), ...prose(described.requestBody.description), ...bodies(api, described.requestBody.content));
  }
  body.append(element('h3', '', 'Answers'));
  for (const [status, answer] of Object.entries(described.responses ?? {})) {
    const isProblem = Boolean(answer.content?.['application/problem+json']);
    body.append(element('p', '', element('strong', '', status), ' ', ...prose(answer.description).flatMap((p) => [...p.childNodes])));
    if (!isProblem) body.append(...bodies(api, answer.content));
  }
  const head = element('summary', '',
    element('span', 'method', method.toUpperCase()), element('code', '', path), element('span', 'summary', described.summary ?? ''));
  const made = element('details', '', head, body);
  made.id = `${method}${path}`;
  made.dataset.text = `${method} ${path} ${described.summary ?? ''}`.toLowerCase();
  return made;
}

function show(api) {
  const main = document.getElementById('main');
  const tags = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = item[method].tags?.[0] ?? 'Other';
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push(operation(api, path, method, item[method]));
    }
  }
  main.replaceChildren(...prose(api.info.description));
  main.append(element('p', '', Object.assign(element('a', '', 'openapi.json'), { href: '/openapi.json' }), ` · version ${api.info.version}`));
  for (const [tag, operations] of tags) {
    main.append(element('section', '', element('h2', '', tag), ...operations));
  }
  main.append(element('section', '', element('h2', '', 'Errors'), element('pre', '', element('code', '', shape(api, api.components.schemas.Problem)))));
  document.getElementById('filter').addEventListener('input', (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const section of main.querySelectorAll('section')) {
      const all = [...section.querySelectorAll('details')];
      for (const one of all) one.hidden = !one.dataset.text.includes(wanted);
      section.hidden = all.length > 0 && all.every((one) => one.hidden);
    }
  });
}

fetch('/openapi.json')
  .then((answer) => answer.json())
  .then(show)
  .catch(() => document.getElementById('main').replaceChildren('The description cannot be loaded.'));
