"use strict";
// Draws each figure's JSON with ECharts: in the page's colours, again when those change.
(() => {
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442"];
  const PARTS = ["#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#999999", "#d55e00"];
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "pin", "arrow", "roundRect"];
  const LINES = ["solid", "dashed", "dotted"];
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const number = new Intl.NumberFormat("en-US", { maximumFractionDigits: 4 });
  const narrow = (width) => width < 560;

  const theme = () => {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(name).trim();
    return { ink: read("--ink"), soft: read("--soft"), line: read("--line"), card: read("--card"), font: style.fontFamily };
  };

  // Black or white, whichever is easier to read on `colour`.
  const on = (colour) => {
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    const light = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    return (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000000" : "#ffffff";
  };

  // What a tooltip shows: lines of text, never markup.
  const said = (lines) => {
    const box = document.createElement("div");
    lines.filter(Boolean).forEach((line, at) => {
      const row = document.createElement(at ? "div" : "strong");
      row.textContent = line;
      box.append(row);
    });
    return box;
  };

  const pen = document.createElement("canvas").getContext("2d");
  const measured = (words, size, font) => { pen.font = `${size}px ${font}`; return pen.measureText(words).width; };
  const cut = (name, most) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
  const axis = (t, more = {}) => ({
    axisLabel: { color: t.soft, ...more.axisLabel },
    axisLine: { lineStyle: { color: t.line } },
    axisTick: { lineStyle: { color: t.line } },
    splitLine: { lineStyle: { color: t.line } },
    nameTextStyle: { color: t.soft },
    ...Object.fromEntries(Object.entries(more).filter(([key]) => key !== "axisLabel")),
  });
  const legend = (t) => ({ top: 0, left: 0, textStyle: { color: t.ink }, inactiveColor: t.line });
  // How much of the height a legend of these names takes.
  const above = (names, width) => {
    let lines = 1, used = 0;
    names.forEach((name) => {
      const wide = 50 + 7.5 * name.length;
      if (used && used + wide > width) { lines += 1; used = 0; }
      used += wide;
    });
    return 12 + 24 * lines;
  };

  const KINDS = {
    // Horizontal bars: a group for each name, a bar for each series.
    bars(view, t, width) {
      const rows = view.names.length * view.series.length;
      const longest = Math.max(...view.series.flatMap((one) => one.texts.map((words) => words.length)));
      const first = view.series.length > 1 ? above(view.series.map((one) => one.name), width) : 8;
      return {
        height: first + 36 + rows * 18 + view.names.length * 14,
        legend: view.series.length > 1 ? legend(t) : undefined,
        grid: { top: first, bottom: 28, left: 8, right: 16 + 7 * longest, containLabel: true },
        xAxis: axis(t, { type: "value", min: 0, axisLabel: { formatter: (v) => `${number.format(v)}${view.unit}`, hideOverlap: true } }),
        yAxis: axis(t, { type: "category", inverse: true, data: view.names, axisLabel: { formatter: (name) => cut(name, narrow(width) ? 18 : 28), color: t.ink } }),
        tooltip: { formatter: (p) => said([view.names[p.dataIndex], `${p.seriesName}: ${view.series[p.seriesIndex].texts[p.dataIndex]}`]) },
        series: view.series.map((one, at) => ({
          type: "bar",
          name: one.name,
          data: one.values,
          barMaxWidth: 16,
          itemStyle: { color: COLOURS[at % COLOURS.length] },
          label: { show: true, position: "right", color: t.ink, fontSize: 11, formatter: (p) => (p.value === null ? "" : one.texts[p.dataIndex]) },
        })),
      };
    },

    // A number is there whole or not at all; `chart` knows how wide each area is.
    treemap(view, t, width, chart) {
      const wide = (p) => (chart.getModel().getSeriesByIndex(0).getData().getItemLayout(p.dataIndex) || {}).width || 0;
      const fits = (p, words, size) => measured(words, size, t.font) <= wide(p) - 14; // the padding and the gap
      const colour = (part) => PARTS[part % PARTS.length];
      const paint = (nodes, part, above) => nodes.map((node, at) => ({
        ...node,
        id: `${above}/${at}`,
        itemStyle: { color: colour(part), borderColor: t.card },
        label: { color: on(colour(part)) },
        children: node.children && paint(node.children, part, `${above}/${at}`),
      }));
      const level = (gap, upper) => ({ itemStyle: { gapWidth: gap, borderWidth: gap, borderColor: t.card }, upperLabel: { show: upper, height: 18, fontSize: 12 } });
      return {
        height: narrow(width) ? 420 : 480,
        tooltip: { formatter: (p) => said([p.name || view.label, `${number.format(p.value)} bytes`, p.treePathInfo.slice(1, -1).map((node) => node.name).join(" › ")]) },
        series: [{
          type: "treemap",
          animation: false,
          name: view.label,
          data: view.children.flatMap((node) => paint([node], node.part, String(node.part))),
          nodeClick: false,
          left: 0, right: 0, top: 0, bottom: 34,
          roam: false,
          itemStyle: { borderColor: t.card },
          breadcrumb: { bottom: 2, left: 0, itemStyle: { color: t.card, borderColor: t.line, textStyle: { color: t.ink } }, emphasis: { itemStyle: { color: t.line, textStyle: { color: t.ink } } } },
          leafDepth: 3,
          label: { formatter: (p) => (fits(p, number.format(p.value), 11) ? `${p.name}\n${number.format(p.value)}` : p.name), fontSize: 11, lineHeight: 14, overflow: "truncate" },
          upperLabel: { color: t.ink, formatter: (p) => { const whole = `${p.name}  ${number.format(p.value)}`; return fits(p, whole, 12) ? whole : p.name; }, overflow: "truncate" },
          levels: [level(2, false), level(2, true), level(1, true), level(0, false)],
        }],
      };
    },

    // The arena: steps across, offsets upwards, a box for each buffer.
    plan(view, t, width) {
      const many = view.steps.length > (narrow(width) ? 8 : 24);
      return {
        height: 420,
        legend: { ...legend(t), itemStyle: { opacity: 0 }, data: ["bytes live", "lower bound"] },
        grid: { top: 36, bottom: 12, left: 8, right: 16, containLabel: true },
        xAxis: axis(t, { type: "category", data: view.steps.map((name, at) => (many ? `${at}` : `${at} ${cut(name, narrow(width) ? 9 : 14)}`)), axisLabel: { rotate: many ? 0 : 40, hideOverlap: many, interval: many ? "auto" : 0 } }),
        yAxis: axis(t, { type: "value", min: 0, max: view.arena, axisLabel: { formatter: (v) => number.format(v) } }),
        tooltip: {
          formatter: (p) => {
            if (p.seriesType !== "custom") return said([`step ${p.dataIndex}: ${view.steps[p.dataIndex]}`, `${p.seriesName}: ${number.format(p.value)} bytes`]);
            const block = view.blocks[p.dataIndex];
            const [first, last, low, high] = block.box;
            return said([block.name, `${number.format(high - low)} bytes at ${number.format(low)}`, `steps ${first} to ${last}`, block.over && `in place over ${block.over}`]);
          },
        },
        series: [
          {
            type: "custom",
            name: "buffers",
            data: view.blocks.map((block) => block.box),
            encode: { x: [0, 1], y: [2, 3] },
            renderItem: (params, api) => {
              const block = view.blocks[params.dataIndex];
              const [first, last, low, high] = block.box;
              const band = api.size([1, 0])[0];
              const [left, base] = api.coord([first, low]);
              const [right, top] = api.coord([last, high]);
              const wide = right - left + band - 2, tall = base - top;
              const fill = COLOURS[params.dataIndex % COLOURS.length];
              const fits = wide > 46 && tall > 14;
              return {
                type: "rect",
                shape: { x: left - band / 2 + 1, y: top, width: wide, height: tall },
                style: { fill, fillOpacity: 0.8, stroke: t.ink, lineWidth: 1, lineDash: block.over ? [4, 3] : null },
                textContent: fits ? { style: { text: block.name, fill: on(fill), fontSize: 11, width: wide - 8, overflow: "truncate" } } : undefined,
                textConfig: { position: "inside" },
              };
            },
          },
          { type: "line", name: "bytes live", step: "middle", data: view.live, symbol: "none", color: t.ink, lineStyle: { color: t.ink, width: 2 }, z: 5 },
          { type: "line", name: "lower bound", data: view.steps.map(() => view.bound), symbol: "none", color: "#d55e00", lineStyle: { color: "#d55e00", type: "dashed", width: 2 }, z: 6 },
        ],
      };
    },

    // Points by group, and the front of each group.
    scatter(view, t, width) {
      const shown = (v) => (view.percent ? `${number.format(v * 100)}%` : number.format(v));
      const groups = [...new Set(view.points.map((point) => point.group))];
      const first = groups.length > 1 ? above(groups, width) : 8;
      // No axis goes beyond 100%.
      const top = view.percent ? (v) => (v.max === v.min || v.max + 0.15 * (v.max - v.min) > 1 ? 1 : null) : null;
      return {
        height: 340 + first,
        legend: groups.length > 1 ? { ...legend(t), data: groups } : undefined,
        grid: { top: first + 28, bottom: 34, left: 8, right: 28, containLabel: true },
        xAxis: axis(t, { type: "value", scale: true, name: cut(view.x, narrow(width) ? 36 : 60), nameLocation: "middle", nameGap: 30, boundaryGap: ["12%", "12%"], axisLabel: { formatter: (v) => number.format(v), hideOverlap: true } }),
        yAxis: axis(t, { type: "value", scale: true, max: top, name: cut(view.y, narrow(width) ? 36 : 60), boundaryGap: ["15%", "15%"], nameTextStyle: { color: t.soft, align: "left" }, axisLabel: { formatter: shown } }),
        tooltip: { formatter: (p) => (p.seriesType === "scatter" ? said([p.name, `${view.x}: ${number.format(p.value[0])}`, `${view.y}: ${shown(p.value[1])}`]) : "") },
        series: [
          ...groups.map((group, at) => ({
            type: "scatter",
            name: group,
            symbol: SYMBOLS[at % SYMBOLS.length],
            symbolSize: 14,
            itemStyle: { color: COLOURS[at % COLOURS.length], borderColor: t.ink },
            data: view.points.filter((point) => point.group === group).map((point) => ({ name: point.name, value: point.at })),
            label: { show: true, position: "top", color: t.ink, fontSize: 12, formatter: (p) => cut(p.name, 20) },
            labelLayout: { hideOverlap: true, moveOverlap: "shiftY" },
          })),
          ...view.front.map((line) => ({ type: "line", data: line, symbol: "none", silent: true, lineStyle: { color: t.soft, type: "dashed" }, tooltip: { show: false } })),
        ],
      };
    },

    lines(view, t, width) {
      const first = above(view.series.map((one) => one.name), width);
      return {
        height: 300 + first,
        legend: legend(t),
        grid: { top: first, bottom: 12, left: 8, right: 24, containLabel: true },
        xAxis: axis(t, { type: "category", data: view.names, axisLabel: { rotate: 40, hideOverlap: true } }),
        yAxis: axis(t, { type: "value", scale: true, axisLabel: { formatter: (v) => `${number.format(v)}${view.unit}` } }),
        tooltip: { formatter: (p) => said([p.seriesName, `${p.name}: ${number.format(p.value)}${view.unit}`, view.details[p.dataIndex]]) },
        series: view.series.map((one, at) => ({
          type: "line",
          name: one.name,
          data: one.values,
          symbol: SYMBOLS[at % SYMBOLS.length],
          symbolSize: 9,
          color: COLOURS[at % COLOURS.length],
          lineStyle: { type: LINES[Math.floor(at / COLOURS.length) % LINES.length] },
        })),
      };
    },

    heat(view, t, width) {
      const size = view.names.length;
      const cells = view.counts.flatMap((row, i) => row.map((n, j) => [j, i, row.reduce((a, b) => a + b, 0) ? n / row.reduce((a, b) => a + b, 0) : 0, n]));
      const side = Math.min(width, 620);
      const short = (name) => cut(name, narrow(width) ? 7 : 12);
      const counted = side / size > 26;
      return {
        height: Math.round(side * 0.85),
        grid: { top: 12, bottom: 8, left: 8, right: 8, containLabel: true, width: side - 80 },
        xAxis: axis(t, { type: "category", data: view.names, splitLine: { show: false }, axisLabel: { rotate: 45, interval: 0, formatter: short, color: t.ink } }),
        yAxis: axis(t, { type: "category", data: view.names, inverse: true, splitLine: { show: false }, axisLabel: { interval: 0, formatter: short, color: t.ink } }),
        tooltip: { formatter: (p) => said([`is ${view.names[p.value[1]]}`, `answered ${view.names[p.value[0]]}`, `${number.format(p.value[3])} samples`]) },
        visualMap: { show: false, min: 0, max: 1, dimension: 2, inRange: { color: [t.card, "#56b4e9", "#0072b2"] } },
        series: [{
          type: "heatmap",
          data: cells.map((value) => ({ value, label: { color: value[2] > 0.7 ? "#ffffff" : value[2] > 0.2 ? "#000000" : t.ink } })),
          itemStyle: { borderColor: t.line, borderWidth: 1 },
          label: { show: counted, fontSize: 11, formatter: (p) => (p.value[3] ? number.format(p.value[3]) : "") },
        }],
      };
    },
  };

  const drawn = [];

  class Drawing {
    constructor(figure) {
      this.box = figure.querySelector(".canvas");
      const { choose, views } = JSON.parse(figure.querySelector("script").textContent);
      this.views = views;
      this.at = 0;
      this.panels = [...figure.parentElement.querySelectorAll("[data-panel]")];
      if (views.length > 1) this.chooser(figure, choose);
      this.chart = null;
      this.draw();
    }

    chooser(figure, choose) {
      const label = document.createElement("label");
      const select = document.createElement("select");
      label.className = "chooser";
      label.textContent = `${choose} `;
      this.views.forEach((view, at) => select.add(new Option(view.label, String(at))));
      select.addEventListener("change", () => { this.at = Number(select.value); this.draw(); });
      label.append(select);
      figure.prepend(label);
    }

    draw(width) {
      const view = this.views[this.at];
      const wide = width || this.box.clientWidth;
      const t = theme();
      if (this.chart) this.chart.dispose();
      this.chart = echarts.init(this.box, null, { renderer: "svg", width: wide, height: 1 });
      const { height, ...option } = KINDS[view.kind](view, t, wide, this.chart);
      this.box.style.height = `${height}px`;
      this.chart.resize({ width: wide, height });
      this.chart.setOption({
        animation: false,
        textStyle: { fontFamily: t.font },
        ...option,
        tooltip: { confine: true, extraCssText: "max-width: min(26rem, 80%); white-space: normal; overflow-wrap: anywhere;", backgroundColor: t.card, borderColor: t.line, textStyle: { color: t.ink }, ...option.tooltip },
      });
      if (view.kind === "treemap") this.chart.on("click", (p) => this.open(p.data || {}));
      this.wide = wide;
      this.panels.forEach((panel) => { panel.hidden = panel.dataset.panel !== view.label; });
    }

    // Shows one area of a treemap alone: the one clicked, or the one that holds it.
    open({ id, children }) {
      const targetNodeId = children ? id : id && id.slice(0, id.lastIndexOf("/"));
      if (targetNodeId) this.chart.dispatchAction({ type: "treemapRootToNode", seriesIndex: 0, targetNodeId });
    }

    fit() {
      if (this.box.clientWidth && this.box.clientWidth !== this.wide) this.draw();
    }
  }

  root.classList.add("drawn");
  document.querySelectorAll("figure.chart").forEach((figure) => drawn.push(new Drawing(figure)));

  const again = () => drawn.forEach((one) => one.draw());
  dark.addEventListener("change", again);
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => drawn.forEach((one) => one.fit()));
  });

  // On paper: light, as wide as a page, everything that is folded away open.
  const PAPER = 940;
  let opened = [];
  addEventListener("beforeprint", () => {
    root.dataset.theme = "light";
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((one) => { one.open = true; });
    drawn.forEach((one) => one.draw(one.box.closest(".pair") ? PAPER / 2 - 20 : PAPER));
  });
  addEventListener("afterprint", () => {
    delete root.dataset.theme;
    opened.forEach((one) => { one.open = false; });
    again();
  });
})();
