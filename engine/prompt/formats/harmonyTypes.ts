/** JSON Schema as the TypeScript-like types that GPT-OSS was trained on (openai/harmony, docs/format.md, "Function calling"). */
import type { Tool } from '../conversation.ts';

type Schema = Readonly<Record<string, unknown>>;

/** `# Tools` of the developer message. */
export function toolsSection(tools: readonly Tool[]): string {
  const functions = tools.map(
    (tool) => `${comment(tool.description)}type ${tool.name} = ${signature(tool)} => any;\n\n`,
  );
  return `# Tools\n\n## functions\n\nnamespace functions {\n\n${functions.join('')}} // namespace functions`;
}

function signature({ parameters }: Tool): string {
  const properties = asSchema(parameters['properties']);
  return properties && Object.keys(properties).length > 0 ? `(_: ${typeOf(parameters, '')})` : '()';
}

function typeOf(schema: Schema, indent: string): string {
  const { type, oneOf, anyOf } = schema;
  const variants = schemasIn(oneOf) ?? schemasIn(anyOf);
  if (variants) return variants.map((variant) => `\n${indent} | ${nullable(variant, `${indent}   `)}`).join('');
  if (Array.isArray(type)) return type.map((name) => typeOf({ ...schema, type: name }, indent)).join(' | ');
  switch (type) {
    case 'object':
      return objectType(schema, indent);
    case 'array':
      return arrayType(schema, indent);
    case 'integer':
    case 'number':
      return 'number';
    case 'boolean':
    case 'null':
      return type;
    default:
      return enumType(schema) ?? (type === 'string' ? 'string' : 'any');
  }
}

function objectType(schema: Schema, indent: string): string {
  const properties = asSchema(schema['properties']) ?? {};
  const required = Array.isArray(schema['required']) ? schema['required'] : [];
  const members = Object.entries(properties).map(([name, value]) =>
    member(required.includes(name) ? name : `${name}?`, asSchema(value) ?? {}, indent),
  );
  const { description } = schema;
  const heading = typeof description === 'string' ? `${indent}// ${oneLine(description)}\n` : '';
  return `${heading}{\n${members.join('')}${indent}}`;
}

function member(name: string, schema: Schema, indent: string): string {
  const variants = schemasIn(schema['oneOf']);
  return variants
    ? variantMember(name, schema, variants, indent)
    : `${above(schema, indent)}${indent}${name}: ${nullable(schema, `${indent}    `)},${defaultComment(schema)}\n`;
}

/** A union has one line for each of its types; its default stands above them. */
function variantMember(name: string, schema: Schema, variants: readonly Schema[], indent: string): string {
  const { description } = schema;
  const lines = variants.map((variant, i) => {
    const { description: own } = variant;
    const isNew = typeof own === 'string' && own !== description && (i > 0 || typeof description !== 'string');
    const notes = [...(isNew ? [oneLine(own)] : []), ...defaultNote(variant)];
    const note = notes.length > 0 ? ` // ${notes.join(' ')}` : '';
    return `${indent} | ${nullable(variant, `${indent}   `)}${note}\n`;
  });
  const byDefault = defaultNote(schema).map((note) => `${indent}// ${note}\n`);
  return `${above(schema, indent)}${byDefault.join('')}${indent}${name}:\n${lines.join('')}${indent},\n`;
}

/** Title, description and examples, as comments. */
function above(schema: Schema, indent: string): string {
  const { title, description, examples } = schema;
  const lines: string[] = [];
  if (typeof title === 'string') lines.push(title, '');
  if (typeof description === 'string') lines.push(...description.split('\n'));
  if (Array.isArray(examples) && examples.length > 0) {
    lines.push('Examples:', ...examples.map((example) => `- ${JSON.stringify(example)}`));
  }
  return lines.map((line) => `${indent}// ${line}`.trimEnd().concat('\n')).join('');
}

function comment(description: string): string {
  return description === ''
    ? ''
    : description
        .split('\n')
        .map((line) => `// ${line}\n`)
        .join('');
}

function nullable(schema: Schema, indent: string): string {
  const type = typeOf(schema, indent);
  return schema['nullable'] === true && !type.includes('null') ? `${type} | null` : type;
}

function arrayType({ items }: Schema, indent: string): string {
  const schema = asSchema(items);
  return schema ? `${typeOf(schema, indent)}[]` : 'Array<any>';
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ');
}

function enumType({ enum: values }: Schema): string | undefined {
  return Array.isArray(values) && values.length > 0
    ? values.map((value) => JSON.stringify(value)).join(' | ')
    : undefined;
}

function defaultComment(schema: Schema): string {
  return defaultNote(schema)
    .map((note) => ` // ${note}`)
    .join('');
}

/** A name out of a list is not quoted. */
function defaultNote(schema: Schema): string[] {
  const { default: value } = schema;
  if (value === undefined) return [];
  return [`default: ${typeof value === 'string' && schema['enum'] !== undefined ? value : JSON.stringify(value)}`];
}

function asSchema(value: unknown): Schema | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined;
}

function schemasIn(value: unknown): readonly Schema[] | undefined {
  return Array.isArray(value) && value.length > 0 ? value.map((item) => asSchema(item) ?? {}) : undefined;
}
