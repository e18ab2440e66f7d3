// How the graphics card draws the points: each is a square around its place, on which its picture, or a disc of its colour, is drawn.

export const VERTEX = `#version 300 es
in vec2 a_from, a_to;
in vec3 a_colour;
in float a_state, a_cell, a_slot, a_shape;
uniform float u_progress, u_size, u_ratio, u_most;
uniform vec2 u_scale, u_offset;
flat out vec3 v_colour;
flat out float v_size, v_ratio, v_cell, v_slot;
flat out int v_state;

void main() {
  // Each point sets off at a moment of its own, so that a change of layout looks like a swarm and not like a slide.
  float late = fract(float(gl_VertexID) * 0.6180339887) * 0.35;
  float share = smoothstep(0.0, 1.0, clamp((u_progress - late) / 0.65, 0.0, 1.0));
  gl_Position = vec4(mix(a_from, a_to, share) * u_scale + u_offset, 0.0, 1.0);
  v_state = int(a_state + 0.5);
  bool pointed = (v_state & 4) != 0;
  gl_Position.z = pointed ? -0.9 : (v_state & 2) != 0 ? -0.3 : (v_state & 1) != 0 ? 0.6 : 0.1;
  v_size = min((pointed ? max(u_size * 1.3, 12.0) : u_size) * u_ratio, u_most);
  gl_PointSize = v_size;
  v_ratio = exp2((a_shape - 128.0) / 64.0);
  v_colour = a_colour;
  v_cell = a_cell;
  v_slot = a_slot;
}`;

export const FRAGMENT = `#version 300 es
precision highp float;
precision highp sampler2DArray;
flat in vec3 v_colour;
flat in float v_size, v_ratio, v_cell, v_slot;
flat in int v_state;
uniform sampler2DArray u_atlases, u_details;
uniform vec3 u_paper, u_accent;
uniform float u_columns, u_cell, u_ratio, u_disc;
uniform int u_ready;
out vec4 colour;

void main() {
  vec2 away = (gl_PointCoord - 0.5) * v_size;
  bool detailed = v_slot < 65534.5;
  bool disc = u_disc > 0.0 && !detailed;
  vec2 half_side = 0.5 * v_size * vec2(min(1.0, v_ratio), min(1.0, 1.0 / v_ratio));
  if (disc) half_side = vec2(min(0.5 * v_size, u_disc * u_ratio));
  float round_by = disc ? half_side.x : min(0.06 * v_size, 6.0 * u_ratio);
  vec2 corner = abs(away) - half_side + round_by;
  float edge = length(max(corner, 0.0)) + min(max(corner.x, corner.y), 0.0) - round_by;
  float cover = clamp(0.5 - edge, 0.0, 1.0);
  if (cover < 0.08) discard;
  vec3 here = v_colour;
  vec2 on = clamp(away / half_side * 0.5 + 0.5, 0.0, 1.0);
  if (detailed) {
    here = texture(u_details, vec3(on, v_slot)).rgb;
  } else if (!disc && v_cell < 65534.5) {
    float layer = floor(v_cell / (u_columns * u_columns));
    float cell = v_cell - layer * u_columns * u_columns;
    vec2 first = vec2(mod(cell, u_columns), floor(cell / u_columns));
    vec2 inset = clamp(on, 0.5 / u_cell, 1.0 - 0.5 / u_cell);
    vec3 drawn = texture(u_atlases, vec3((first + inset) / u_columns, layer)).rgb;
    if ((u_ready >> int(layer) & 1) == 1) here = drawn;
  }
  if ((v_state & 1) != 0) here = mix(here, u_paper, 0.86);
  bool marked = (v_state & 6) != 0;
  if (marked && edge > -max(1.5, min(0.09 * v_size, 3.0 * u_ratio))) here = u_accent;
  colour = vec4(here * cover, cover);
}`;
