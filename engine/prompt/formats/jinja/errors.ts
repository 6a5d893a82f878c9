/** The template is no Jinja, or does what Python would raise an exception for. The message is shown to the user. */
export class TemplateError extends Error {}
